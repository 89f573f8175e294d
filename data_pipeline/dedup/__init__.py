"""Exact and near-duplicate removal: candidates by signature, verified by their texts, each removal for a kept document.

    bands.py         threshold -> bands and rows of a signature, and the probability that two documents meet
    candidates.py    signatures -> pairs worth comparing (Ray Data shuffles of bands, stars, loose groups)
    components.py    edges -> connected components, in memory or by rounds of group-bys
    verify.py        pairs -> removals, by true Jaccard over full shingle sets
    duplicates.py    both in order, and what was found in figures
    member_files.py  where signatures and texts lie: staged files and the corpus tables
    losses.py        a source that would lose more than is believable ends the refresh
    boilerplate.py   lines that recur over a host's pages (option)
    table.py, table_files.py, __main__.py   the command for any table: python -m data_pipeline.dedup

Signatures are made in data_pipeline.minhash.
"""
