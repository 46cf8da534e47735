"""Mends what Sphinx and its extensions write that a screen reader cannot read."""

import re


def mend(body: str) -> str:
    # The bibliography: an entry's role is one that browsers have given up; in a list, items are list items.
    body = body.replace('role="doc-biblioentry"', 'role="listitem"')
    # A signature over several lines: a list of definitions with nothing that they define.
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
