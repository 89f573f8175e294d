"""Words of wikitext by language: redirects, disambiguation templates, namespaces, sections of links and sources.

From the translations of MediaWiki (languages/messages/Messages*.php) and the templates of the large Wikipedias.
"""

from __future__ import annotations

import re

# Magic word "redirect" of languages/messages, without its "#".
REDIRECT_WORDS = (
    *("redirect", "weiterleitung", "redirection", "redirección", "redireccion", "転送", "リダイレクト"),
    *(
        "넘겨주기",
        "пренасочване",
        "виж",
        "重定向",
        "перенаправление",
        "перенапр",
        "перенаправлення",
        "rinvia",
    ),
    *("omdirigering", "omleiding", "doorverwijzing", "patrz", "przekieruj", "tam", "redirecionamento"),
    *("redirecciona", "redirecció", "přesměruj", "presmeruj", "ohjaus", "uudelleenohjaus", "átirányítás"),
    *("yönlendirme", "yönlendir", "تحويل", "تغییر_مسیر", "تغییرمسیر", "הפניה", "đổi", "alih", "lencong"),
    *("redirectare", "ανακατευθυνση", "ανακατεύθυνση", "преусмери", "preusmeri", "preusmjeri", "suunamine"),
    *("birzuzendu", "doorverwijzing", "ombidirejo", "alidirektu", "เปลี่ยนทาง", "पुनर्प्रेषित", "अनुप्रेषित"),
)
REDIRECT = re.compile(rf"#\s?(?:{'|'.join(map(re.escape, REDIRECT_WORDS))})\s{{0,5}}:?\s{{0,5}}\[\[", re.I)

# Names that hold "disambig" are matched by that; these are the others.
DISAMBIGUATION_TEMPLATES = frozenset(
    (
        *(
            "dab",
            "hndis",
            "geodis",
            "numberdis",
            "roadis",
            "schooldis",
            "hospitaldis",
            "mathdab",
            "letterdis",
        ),
        *("begriffsklärung", "homonymie", "homonyme", "homonymes", "paronymie", "desambiguación"),
        *("desambiguacion", "desambiguação", "desambiguació", "aimai", "曖昧さ回避", "人名の曖昧さ回避"),
        *("地名の曖昧さ回避", "同名の作品の曖昧さ回避", "同音異義", "동음이의", "동음이의어", "동명이인"),
        *("пояснение", "неоднозначность", "многозначность", "багатозначність", "неоднозначність", "消歧义"),
        *("消歧義", "消歧义页", "消歧義頁", "人名消歧义", "人名消歧義", "地名消歧义", "地名消歧義", "消歧"),
        *("disambigua", "dp", "doorverwijspagina", "ujednoznacznienie", "förgrening", "gren", "rozcestník"),
        *("flertydig", "peker", "pekerside", "täsmennyssivu", "anlam ayrımı", "توضيح", "ابهام‌زدایی"),
        *("פירושונים", "egyért", "egyértelműsítő lap", "định hướng", "trang định hướng", "dezambiguizare"),
        *("αποσαφήνιση", "แก้กำกวม", "बहुविकल्पी शब्द", "вишезначна одредница", "razdvojba", "apartigilo"),
    )
)
TEMPLATE_NAME = re.compile(r"\{\{([^{}|\n]{1,80})(?=[|}\n])")

MEDIA_PREFIXES = frozenset(
    (
        *(
            "file",
            "image",
            "media",
            "datei",
            "bild",
            "fichier",
            "archivo",
            "imagen",
            "ficheiro",
            "imagem",
            "immagine",
        ),
        *(
            "bestand",
            "afbeelding",
            "plik",
            "grafika",
            "fil",
            "tiedosto",
            "kuva",
            "soubor",
            "súbor",
            "fájl",
            "kép",
        ),
        *(
            "dosya",
            "resim",
            "файл",
            "изображение",
            "картинка",
            "зображення",
            "файл",
            "картинка",
            "слика",
            "датотека",
        ),
        *(
            "ファイル",
            "画像",
            "파일",
            "그림",
            "文件",
            "檔案",
            "档案",
            "图像",
            "圖像",
            "圖片",
            "图片",
            "媒体",
            "媒體",
        ),
        *("ملف", "صورة", "پرونده", "تصویر", "קובץ", "תמונה", "tập tin", "hình", "berkas", "gambar", "fișier"),
        *(
            "imagine",
            "αρχείο",
            "εικόνα",
            "ไฟล์",
            "ภาพ",
            "चित्र",
            "fitxer",
            "imatge",
            "fitxategi",
            "irudi",
            "dosiero",
        ),
        *("メディア", "медия", "медиа", "картина", "slika", "datoteka", "mynd", "pilt", "attēls", "vaizdas"),
    )
)
CATEGORY_PREFIXES = frozenset(
    (
        *(
            "category",
            "kategorie",
            "catégorie",
            "categoría",
            "categoria",
            "categorie",
            "kategoria",
            "kategori",
        ),
        *(
            "luokka",
            "kategória",
            "kategorija",
            "катэгорыя",
            "категория",
            "категорія",
            "категорија",
            "カテゴリ",
        ),
        *("분류", "分类", "分類", "تصنيف", "رده", "קטגוריה", "thể loại", "κατηγορία", "หมวดหมู่", "श्रेणी"),
        *("kategorio", "flokkur", "kategoorija", "kategooria", "categoría", "kategoriija", "kategorya"),
    )
)
# Language codes of Wikipedias that do not look like one: two or three letters, perhaps with a hyphenated rest.
LANGUAGE_PREFIX = re.compile(r"(?:[a-z]{2,3}(?:-[a-z]{2,10})*|simple)")
# Prefixes of that shape that lead elsewhere than to the same article in another language.
NO_LANGUAGE = frozenset(("wp", "mw", "phab", "doi", "wmf", "oed", "rfc", "gc"))

# Sections that hold lists of links, sources and pictures, no prose.
END_SECTIONS = frozenset(
    (
        *("references", "external links", "see also", "further reading", "notes", "sources", "bibliography"),
        *("footnotes", "citations", "works cited", "notes and references", "references and notes", "gallery"),
        *(
            "other websites",
            "related pages",
            "external link",
            "image gallery",
            "notes and citations",
            "explanatory notes",
        ),
        *("references and sources", "general references", "cited sources", "general and cited references"),
        *(
            "参考文献",
            "外部链接",
            "外部連結",
            "参见",
            "參見",
            "注释",
            "參考文獻",
            "註釋",
            "参考资料",
            "參考資料",
            "脚注",
            "腳註",
        ),
        *(
            "相關條目",
            "相关条目",
            "延伸閱讀",
            "延伸阅读",
            "注釋",
            "备注",
            "備註",
            "参看",
            "參看",
            "图集",
            "圖集",
        ),
        *(
            "einzelnachweise",
            "weblinks",
            "literatur",
            "siehe auch",
            "fußnoten",
            "quellen",
            "belege",
            "anmerkungen",
        ),
        *(
            "literatur und quellen",
            "einzelnachweise und anmerkungen",
            "anmerkungen und einzelnachweise",
            "galerie",
        ),
        *(
            "notes et références",
            "références",
            "liens externes",
            "lien externe",
            "voir aussi",
            "bibliographie",
        ),
        *(
            "articles connexes",
            "annexes",
            "sources et bibliographie",
            "notes",
            "notes et sources",
            "liens internes",
        ),
        *(
            "referencias",
            "enlaces externos",
            "véase también",
            "bibliografía",
            "notas",
            "notas y referencias",
            "galería",
        ),
        *(
            "脚注",
            "出典",
            "外部リンク",
            "関連項目",
            "注釈",
            "関連文献",
            "参照",
            "脚註",
            "注記",
            "ギャラリー",
            "参考資料",
        ),
        *(
            "각주",
            "같이 보기",
            "외부 링크",
            "참고 문헌",
            "참고문헌",
            "출처",
            "참고 자료",
            "주석",
            "함께 보기",
            "바깥 고리",
        ),
        *(
            "източници",
            "външни препратки",
            "вижте също",
            "литература",
            "бележки",
            "бележки и източници",
            "галерия",
        ),
        *(
            "примечания",
            "ссылки",
            "см. также",
            "источники",
            "галерея",
            "примітки",
            "посилання",
            "див. також",
            "джерела",
        ),
        *(
            "note",
            "bibliografia",
            "collegamenti esterni",
            "voci correlate",
            "altri progetti",
            "galleria d'immagini",
        ),
        *(
            "referências",
            "ver também",
            "ligações externas",
            "notas e referências",
            "przypisy",
            "linki zewnętrzne",
        ),
        *(
            "zobacz też",
            "uwagi",
            "zie ook",
            "externe links",
            "externe link",
            "bronnen",
            "referenties",
            "literatuur",
        ),
        *(
            "bronnen, noten en/of referenties",
            "se även",
            "externa länkar",
            "källor",
            "referenser",
            "reference",
        ),
        *(
            "související články",
            "externí odkazy",
            "kaynakça",
            "dış bağlantılar",
            "ayrıca bakınız",
            "المراجع",
            "مراجع",
        ),
        *(
            "وصلات خارجية",
            "انظر أيضا",
            "انظر أيضًا",
            "منابع",
            "پیوند به بیرون",
            "جستارهای وابسته",
            "הערות שוליים",
        ),
        *(
            "קישורים חיצוניים",
            "ראו גם",
            "tham khảo",
            "liên kết ngoài",
            "xem thêm",
            "chú thích",
            "referensi",
            "pranala luar",
        ),
    )
)


def is_redirect(source: str) -> bool:
    """Whether a page only leads on to another, by its first word."""
    return bool(REDIRECT.match(source[:400].lstrip("\ufeff \t\n\r")))


def is_disambiguation(source: str) -> bool:
    """Whether a page only tells apart pages of like name, by its templates."""
    if "__DISAMBIG__" in source:
        return True
    names = (match.group(1).strip().lower().replace("_", " ") for match in TEMPLATE_NAME.finditer(source))
    return any(name in DISAMBIGUATION_TEMPLATES or _holds_disambig(name) for name in names)


def _holds_disambig(name: str) -> bool:
    # "{{disambiguation needed}}" is a note to editors, and "{{disambiguation|geo}}" the real thing.
    words = name.split()
    return bool(words) and words[-1].startswith("disambig") and "from" not in words


def link_kind(target: str) -> str:
    """What a link's target is: media, category, language (the article elsewhere) or "" for a page."""
    prefix, colon, rest = target.partition(":")
    prefix = prefix.strip().lower().replace("_", " ")
    if not colon:
        return ""
    if prefix in MEDIA_PREFIXES:
        return "media"
    if prefix in CATEGORY_PREFIXES:
        return "category"
    if LANGUAGE_PREFIX.fullmatch(prefix) and prefix not in NO_LANGUAGE and not rest.startswith(" "):
        return "language"
    return ""
