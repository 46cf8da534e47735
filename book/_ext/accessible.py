"""Repairs HTML from Sphinx and its extensions: what screen readers cannot read, and lines that break in front of a dot."""

import re

MATH = r'<span class="math notranslate nohighlight">[^<]*</span>'
OPENING, CLOSING = "[(\\[\u201c]", "[.,:;!?)\\]\u2019\u201d\u2013-]+|th\\b"


def mend(body: str) -> str:
    # Browsers may break a line on either side of a formula, even in front of a comma.
    body = re.sub(
        rf"{OPENING}{MATH}(?:{CLOSING})?|{MATH}(?:{CLOSING})",
        r'<span class="pn-joined">\g<0></span>',
        body,
    )
    # Browsers no longer support the role that a bibliography entry has. The entries form a list, so make them items.
    body = body.replace('role="doc-biblioentry"', 'role="listitem"')
    # A signature over several lines is a definition list without terms.
    return re.sub(
        r'<dl>\n((?:<dd><em class="sig-param">.*?</dd>\n)+)</dl>',
        lambda match: re.sub(
            "<dd>(.*?)</dd>",
            r'<span class="pn-parameter">\1</span>',
            match[1],
        ),
        body,
    )


def setup(app):
    def page(app, page, template, context, doctree):
        if "body" in context:
            context["body"] = mend(context["body"])

    app.connect("html-page-context", page)
    return {"parallel_read_safe": True}
