"""Lines that web pages have whatever they are about: teasers, share bars, cookie and script notices, placeholders.

A rule is a regular expression that a whole line must match, in any case, once arrows, brackets and stops around it
are taken off. No rule is a word that may be a line of verse or of code, or a cell of a table: "Share", "Menu",
"More" and the like stay. RE2 matches them, in linear time on any text, so `.*` costs nothing.
"""

from __future__ import annotations

import re

from data_pipeline.patterns import linear

# Longer lines are prose, whatever they begin with.
MAX_LINE_CHARS = 400
# No sign that begins a comment, a list item or a formula in code and Markdown (# * + / = <).
ORNAMENT = " \t\u3000»«›‹>→←▶▸➜•·|[](){}【】…:：!！。.—–-"

_NETWORK = "(?:facebook|twitter|linkedin|pinterest|reddit|whatsapp|tumblr|telegram|instagram|youtube|google ?\\+|weibo)"
# Apart by spaces only: with bars or commas it is as likely the head of a table.
_NETWORKS = rf"{_NETWORK}(?: +[·•]? ?(?:{_NETWORK}|e-?mail|print|rss|copy link))+"
_THIS_SITE = "(?:this|our|the)(?: web)? ?(?:site|page|blog|store|portal)"

RULES = (
    # Teasers and ways around the page.
    "(?:please )?(?:click|tap) here to (?:read|see|view|learn) more",
    "(?:read|see|view|load|show|learn) more",
    "(?:read|view|see) (?:the )?(?:full|entire|whole|complete) (?:article|story|post|review|entry)",
    "(?:continue|keep) reading(?: below| the main story)?",
    "(?:skip|jump) to (?:the )?(?:main )?(?:content|navigation|search|menu|main menu|footer)",
    "back to (?:the )?top(?: of (?:the )?page)?",
    "(?:view|see|show) all (?:posts|articles|comments|news|stories)(?: by .*)?",
    "toggle (?:navigation|menu|search)",
    "advertisement(?: ?[-–—] ?(?:continue reading below|scroll to continue))?",
    "(?:story|article) continues (?:below|after) (?:the |this )?(?:ad|advert|advertisement)",
    "weiterlesen|mehr (?:lesen|erfahren|anzeigen)|zum (?:seitenanfang|inhalt springen)",
    "lire (?:la suite|l['’]article complet)|en savoir plus|voir plus|retour en haut(?: de (?:la )?page)?",
    "leer más|seguir leyendo|ver más|ir al contenido(?: principal)?|volver arriba",
    "leggi (?:tutto|di più|anche)|continua a leggere|scopri di più|torna su",
    "leia mais|ler mais|continue lendo|saiba mais|voltar ao topo|ir para o conteúdo",
    "lees (?:meer|verder)|meer lezen|naar boven",
    "читать (?:далее|полностью|ещ[её])|подробнее",
    "(?:点击)?(?:阅读|查看|加载|展开|显示)(?:全文|更多|全部|原文|原图|更多(?:评论|内容|回复|新闻))",
    "继续阅读|返回顶部|回到顶部|返回首页|设为首页|加入收藏|收藏本站|打印本页|关闭窗口|我要评论|发表评论",
    "続きを読む|もっと見る|(?:ページの?)?(?:先頭|トップ)(?:へ|に)戻る|더 ?보기|공유하기",
    # Share and subscription bars.
    "share (?:this|via|by)(?: (?:post|article|story|page|entry|news|on|with|via|e-?mail|link|video|your friends))*",
    rf"(?:please )?(?:share|tweet|pin|post|click to share|share this \w+) (?:this )?(?:on|to|via|with) (?:{_NETWORK}|e-?mail|x)"
    r"(?: \(opens in (?:a )?new window)?",
    r"click to (?:print|e-?mail(?: (?:this|a link) to a friend)?) \(opens in (?:a )?new window",
    rf"(?:like|follow|join|find) us on (?:{_NETWORKS}|{_NETWORK})",
    rf"(?:share ?:? ?)?{_NETWORKS}",
    "like (?:this|loading)|tweet this|e-?mail this(?: (?:article|page|story|to a friend))?|blogthis",
    "(?:subscribe|sign up)(?: now| today| here)? (?:to|for) (?:our|the) (?:(?:free|daily|weekly|monthly|e-?mail) )*"
    "(?:newsletters?|mailing list)",
    "auf (?:facebook|twitter|whatsapp|linkedin|xing) (?:teilen|twittern)|(?:artikel|beitrag|seite) (?:teilen|drucken)",
    "partager sur (?:facebook|twitter|whatsapp|linkedin)|partager (?:cet article|cette page)",
    "compartir en (?:facebook|twitter|whatsapp|linkedin)|condividi su (?:facebook|twitter|whatsapp)|"
    "compartilhar no (?:facebook|twitter|whatsapp)|поделиться(?: в .*)?",
    "(?:一键)?分享(?:到|至|给)(?:微信|微博|新浪微博|腾讯微博|朋友圈|qq|qq空间|好友|[、 和])*",
    ".*(?:打开微信|微信扫一扫|扫一扫|扫描二维码).*(?:分享|关注|朋友圈).*",
    # Cookies.
    "(?:by (?:using|continuing|browsing|visiting|clicking)|if you continue).*(?:agree|consent|accept).*cookies?.*",
    rf"{_THIS_SITE} (?:uses?|is using|makes use of|utili[sz]es?|stores?|sets?|places?) .*cookies?.*",
    "(?:we|we and our partners|our partners and we)(?: also)? (?:use|store|place|set) .*cookies? .*",
    "cookies? (?:help us|are used|allow us|enable us) .*",
    "(?:accept|allow|reject|decline|manage|customi[sz]e)(?: all)?(?: the)? cookies",
    "cookie (?:settings|preferences|policy|notice|consent)",
    "(?:diese|unsere) (?:web)?(?:seite|site) (?:verwendet|nutzt|benutzt|setzt) .*cookies.*",
    "wir (?:verwenden|nutzen|setzen) .*cookies.*",
    "ce site (?:web )?(?:utilise|dépose|emploie) .*cookies.*|nous utilisons .*cookies.*",
    "en poursuivant (?:votre|la) navigation.*cookies.*",
    "(?:este|nuestro) (?:sitio(?: web)?|página(?: web)?) (?:utiliza|usa|emplea) .*cookies.*",
    "(?:nós )?(?:utilizamos|usamos) .*cookies.*|(?:este|nosso) (?:site|sítio) (?:utiliza|usa) .*cookies.*",
    "(?:questo|il nostro) sito (?:web )?(?:utilizza|usa|fa uso di) .*cookies?.*|(?:utilizziamo|usiamo) .*cookies?.*",
    "(?:deze|onze) (?:web)?site (?:gebruikt|maakt gebruik van) .*cookies.*|wij gebruiken .*cookies.*",
    "(?:мы|(?:наш |этот )?сайт) использу(?:ем|ет) .*(?:cookies?|куки).*",
    "(?:本|此|该|我们的)?(?:网站|网页|站点|我们)(?:会)?(?:使用|采用)了? ?.*cookies?.*",
    "(?:当|本|この)サイト(?:では|は).*(?:cookie|クッキー).*",
    # Scripts and browsers.
    "(?:this|our|the) (?:web ?)?(?:site|page|app|application|form|feature|video|content|blog|comments?)"
    " (?:requires?|needs?) (?:that )?java ?script.*",
    "(?:please |you (?:must|need to|have to|should) )?(?:enable|turn on|activate|allow) java ?script.*",
    "(?:it (?:seems|appears|looks like) (?:that )?)?(?:your )?java ?script(?: and cookies)? (?:is|are|must be|seems to be|"
    "appears to be|needs to be|has to be) (?:currently |not )?(?:disabled|enabled|required|turned (?:on|off)|supported).*",
    "(?:sorry,? )?(?:your|the) (?:web ?)?browser (?:does not|doesn['’]t|do not) (?:currently )?(?:support|have|recogni[sz]e) .*",
    "you (?:are using|have) an (?:outdated|unsupported|old) (?:version of )?.*browser.*",
    "bitte (?:aktivieren|aktiviere)(?: sie)? java ?script.*|(?:veuillez |merci d['’])?activer java ?script.*",
    "(?:por favor,? )?(?:active|activa|habilite|habilita|ative) (?:el |o )?java ?script.*",
    "(?:您|你)的浏览器.*(?:不支持|版本过低|版本太低|未开启|已禁用).*|请(?:开启|启用|打开|允许).*java ?script.*",
    "javascriptを有効に.*",
    # Placeholders.
    "lorem ipsum(?: dolor.*)?",
)

_ANY_RULE = "|".join(RULES)
_LINE = linear(f"(?i:{_ANY_RULE})")
_ORNAMENTS = f"[{re.escape(ORNAMENT)}]*"
# Finds every text that `without_stock_lines` shortens (and some with longer lines, which it leaves).
PATTERN = f"(?im:^{_ORNAMENTS}(?:{_ANY_RULE}){_ORNAMENTS}$)"


def is_stock_line(line: str) -> bool:
    """Whether a line is one that any page may have."""
    bare = line.strip(ORNAMENT) if len(line) <= MAX_LINE_CHARS else ""
    return bool(bare) and _LINE.fullmatch(bare) is not None


def without_stock_lines(text: str) -> str:
    """The text without such lines."""
    return "\n".join([line for line in text.split("\n") if not is_stock_line(line)])
