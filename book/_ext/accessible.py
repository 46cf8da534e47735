"""Repairs HTML from Sphinx and its extensions: what screen readers cannot read, and lines that break in front of a dot."""

import re

MATH = r'<span class="math notranslate nohighlight">[^<]*</span>'
JOINED = "&#8288;"  # no line breaks here


def mend(body: str) -> str:
    # Browsers may break a line on either side of a formula, even in front of a comma.
    body = re.sub(
        rf"({MATH})(?=[.,:;!?)\]\u2019\u201d\u2013-]|th\b)",
        rf"\1{JOINED}",
        body,
    )
    body = re.sub(rf"([(\[\u201c])(?={MATH})", rf"\1{JOINED}", body)
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
