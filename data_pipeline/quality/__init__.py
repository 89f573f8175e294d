"""Is a document more like texts that the user holds up as good, or as bad? A linear model over hashed n-grams.

    features.py     a text -> windows -> the distinct word 1- and 2-grams of each, as numbers of buckets
    examples.py     sources that the user names -> chosen documents -> their windows, on Ray Data
    classifier.py   windows and labels -> weights (logistic regression), and how good they are on held-out documents
    model.py        weights <-> a folder that proves itself by hashes
    training.py     all of that in order: <corpus>/quality/NAME
    scoring.py      the step of a refresh: a score for each document, and who falls below the bound

The idea is that of GPT-3's and LLaMA's filters (Brown et al. 2020, appendix A; Touvron et al. 2023, section 2.1):
curated text against raw web. It judges style and subject, not truth; look at what it removes before you believe it.
"""
