"""Images of pages: which have no text, and that a page changes nowhere else."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from limner.text.page_images import filled, html_images, markdown_images


@pytest.mark.parametrize(
    ("tag", "state", "after"),
    [
        ('<img src="a.jpg">', "missing", '<img alt="X" src="a.jpg">'),
        ("<IMG\n  SRC=a.jpg/>", "missing", '<IMG alt="X"\n  SRC=a.jpg/>'),
        ('<img src="a.jpg" alt="">', "empty", '<img src="a.jpg" alt="X">'),
        ("<img alt='' src=a.jpg>", "empty", '<img alt="X" src=a.jpg>'),
        ("<img alt src=a.jpg>", "empty", '<img alt="X" src=a.jpg>'),
        ("<img src=a.jpg alt=>", "empty", '<img src=a.jpg alt="X">'),
        ('<img src=a.jpg alt=" ">', "empty", '<img src=a.jpg alt="X">'),
        ('<img src=a.jpg title="a > b">', "missing", '<img alt="X" src=a.jpg title="a > b">'),
        ('<img data-alt="y" src=a.jpg>', "missing", '<img alt="X" data-alt="y" src=a.jpg>'),
        ('<img src=a.jpg alt="Rex">', "described", None),
        ('<img src=a.jpg alt=Rex alt="">', "described", None),
        ('<img src=a.jpg alt="" aria-label="Rex">', "described", None),
        ('<img src=a.jpg role="presentation">', "decorative", None),
        ('<img src=a.jpg role=none alt="">', "decorative", None),
        ('<img src=a.jpg aria-hidden="TRUE">', "decorative", None),
        ('<img src=a.jpg hidden>', "decorative", None),
        ('<img src=a.jpg width="1" height=1>', "decorative", None),
    ],
)  # fmt: skip
def test_what_a_tag_says(tag: str, state: str, after: str | None):
    page = f"<p>before</b> {tag} behind & more"
    (image,), _ = html_images(page)
    assert image.state == state and image.source in ("a.jpg", "a.jpg/")
    if after:
        assert filled(page, [(image, "X")]) == page.replace(tag, after)


def test_html_that_is_not_well_formed_survives():
    page = (
        "<!doctype html>\r\n<p <b><img src='a&amp;b.jpg'\r\n><!-- <img src=no.jpg> --><script>'<img src=no.jpg>'"
        "</script></i><td><img src=b.jpg alt='Rex'><style><img src=no.jpg></style>\r\n"
        '<a href="x>\n<img src=c.jpg> <img src='
    )
    images, base = html_images(page)
    assert [(image.source, image.state) for image in images][:2] == [("a&b.jpg", "missing"), ("b.jpg", "described")]
    new = filled(page, [(images[0], 'a "dog" <on> & off')])
    assert new == page.replace("<img src='a&amp;", '<img alt="a &quot;dog&quot; &lt;on&gt; &amp; off" src=\'a&amp;')
    assert base == "" and html_images('<base href="/x/"><base href="/y/">')[1] == "/x/"


MARKDOWN = """# Title ![](a.jpg)
![ ](<b c.jpg> "Rex") ![](d(1).jpg) ![][One] ![two][] \\![](no.jpg) ![a dog](no.jpg)
`![](no.jpg)` ``![](no.jpg) ` `` <!-- ![](no.jpg) --> <img src="e.jpg"> ![](f.jpg 'it is')

```html
<img src="no.jpg"> ![](no.jpg)
```

    ![](no.jpg)

- item

      ![](no.jpg)

  ![](g.jpg)

[one]: h.jpg "title"
"""


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_markdown(newline: str):
    page = MARKDOWN.replace("\n", newline)
    images = markdown_images(page)
    assert [image.source for image in images] == [
        *("a.jpg", "b c.jpg", "d(1).jpg", "h.jpg", "e.jpg", "f.jpg", "g.jpg"),
    ]
    new = filled(page, [(image, "a [dog] *on* x_y") for image in images])
    assert new.count(r"![a \[dog\] \*on\* x\_y]") == 6 and '<img alt="a [dog] *on* x_y" src="e.jpg">' in new
    back = new.replace(r"a \[dog\] \*on\* x\_y", "").replace(' alt="a [dog] *on* x_y"', "")
    assert back == page.replace("![ ]", "![]")


@given(st.text(alphabet="<>img src=alt\"'/!-a.\n\r&[]()`\\ é", max_size=80))
def test_nothing_but_the_texts_changes(noise: str):
    """Each insertion, taken out again, leaves the page, whatever stands in it."""
    for page, images in (
        (noise, html_images(noise)[0]),
        (f"<img src=a>{noise}", html_images(f"<img src=a>{noise}")[0]),
        (noise, markdown_images(noise)),
    ):
        new = filled(page, [(image, "WORDS") for image in images])
        pieces = re.split(r"(?: ?alt=\")?WORDS\"?", new)
        places = [0, *(place for image in images for place in (image.begin, image.end)), len(page)]
        kept = [page[begin:end] for begin, end in zip(places[::2], places[1::2], strict=True)]
        assert "".join(pieces).replace(" ", "") == "".join(kept).replace(" ", "")
