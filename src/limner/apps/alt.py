"""`limner alt`: alternative text into HTML and Markdown pages."""

import argparse
import base64
import binascii
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from difflib import unified_diff
from functools import partial
from pathlib import Path
from urllib.parse import unquote, unquote_to_bytes, urljoin, urlsplit

from limner.apps.shared.arguments import WrongArguments, only_decoding, report_lines, report_notes, report_unreadable
from limner.apps.shared.decoding import decoding_of
from limner.apps.shared.journal import printable
from limner.apps.shared.models import open_captioner
from limner.core.files import atomic_write, check_writable
from limner.core.torch_free import Failure, Source, WithContext
from limner.data.media_folder import visible_below
from limner.inference.context import context_of
from limner.inference.load import PromptedPipeline
from limner.text.alt_text import MAX_CHARS, alt_text
from limner.text.page_images import PageImage, filled, html_images, markdown_images

HTML, MARKDOWN = (".html", ".htm", ".xhtml"), (".md", ".markdown")


@dataclass
class Page:
    """A page, its images without text, and the pictures that these show.

    root      the folder in which addresses like /img/dog.jpg begin
    text      its characters; bytes that are not UTF-8 are surrogates
    pictures  image -> the path of its file, or the bytes of a data URL
    """

    path: Path
    root: Path
    text: str
    base: str = ""
    images: list[PageImage] = field(default_factory=list)
    pictures: dict[PageImage, str | bytes] = field(default_factory=dict)

    @property
    def is_utf8(self) -> bool:
        return not any("\udc80" <= char <= "\udcff" for char in self.text)


@dataclass
class Findings:
    """What is reported at the end; `kept` counts images by their state."""

    unreadable: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    kept: dict[str, int] = field(default_factory=dict)
    remote: list[str] = field(default_factory=list)


def run(options: argparse.Namespace, rest: list[str]) -> int:
    changes = only_decoding(rest)
    if options.max_chars is not None and options.max_chars < 10:
        raise WrongArguments(f"--max-chars {options.max_chars}: a sentence needs 10 characters or more")
    findings = Findings()
    pages = [page for path, root in _page_paths(options, findings) if (page := _read(path, root, options, findings))]
    sources = {picture: None for page in pages for picture in page.pictures.values()}
    texts = _captions(list(sources), options, changes, findings) if sources else {}
    count = 0
    for page in pages:
        words = [(image, texts[picture]) for image, picture in page.pictures.items() if picture in texts]
        new = filled(page.text, words, plain_ascii=not page.is_utf8)
        if new != page.text:
            count += len(words) if _finish(page, new, options.write, findings) else 0
    _report(findings, count, options.write)
    return 3 if findings.unreadable or findings.failed else 0


def _page_paths(options: argparse.Namespace, findings: Findings) -> Iterator[tuple[Path, Path]]:
    """The pages that are named, and those in folders, each with the folder in which its site begins."""
    for given in options.pages:
        if given.is_dir():
            below = sorted(path for path in visible_below(given) if path.suffix.lower() in HTML + MARKDOWN)
            if not below:
                findings.unreadable.append(f"{given}: no page in this folder (.html, .htm, .xhtml, .md, .markdown)")
            yield from ((path, options.root or given) for path in below)
        elif given.suffix.lower() in HTML + MARKDOWN:
            yield given, options.root or given.parent
        else:
            findings.unreadable.append(f"{given}: expected a page (.html, .htm, .xhtml, .md, .markdown) or a folder")


def _read(path: Path, root: Path, options: argparse.Namespace, findings: Findings) -> Page | None:
    """A page with the pictures that get a text; None when it cannot be read or changed."""
    try:
        data = path.read_bytes()
        if options.write:
            check_writable(path.resolve())
            if not path.stat().st_mode & 0o222:
                raise PermissionError(13, "it is read-only")
    except OSError as error:
        findings.unreadable.append(f"{path}: {error.strerror}")
        return None
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        findings.unreadable.append(f"{path}: pages in UTF-16 are not changed; save it as UTF-8")
        return None
    page = Page(path, root, data.decode("utf-8", "surrogateescape"))
    if path.suffix.lower() in HTML:
        page.images, page.base = html_images(page.text)
    else:
        page.images = markdown_images(page.text)
    for image in page.images:
        if image.state == "missing" or (image.state == "empty" and options.empty):
            picture = _picture(page, image, findings)
            page.pictures |= {image: picture} if picture else {}
        else:
            findings.kept[image.state] = findings.kept.get(image.state, 0) + 1
    return page


def _picture(page: Page, image: PageImage, findings: Findings) -> str | bytes | None:
    """The path of an image's file, or the bytes of its data URL; None for others, which are reported."""
    name = f"{page.path}: {printable(image.source[:100])}"
    if not image.source:
        findings.notes.append(f"{page.path}: an image without src is left as it is")
        return None
    try:
        address = urlsplit(urljoin(page.base, image.source))
    except ValueError as error:
        findings.unreadable.append(f"{name}: no address ({error})")
        return None
    if address.scheme == "data":
        return _data_of(image.source, name, findings)
    if address.scheme or address.netloc:
        findings.remote.append(name)
        return None
    relative = unquote(address.path, errors="surrogateescape")
    path = page.root / relative.lstrip("/") if relative.startswith("/") else page.path.parent / relative
    if "\0" not in relative and path.is_file():
        return str(path)
    findings.unreadable.append(f"{name}: there is no file {printable(str(path))}")
    return None


def _data_of(address: str, name: str, findings: Findings) -> bytes | None:
    """The bytes of a data URL (RFC 2397)."""
    head, _, content = address.partition(",")
    data = unquote_to_bytes(content)
    try:
        return base64.b64decode(data) if head.endswith(";base64") else data
    except binascii.Error as error:
        findings.unreadable.append(f"{name}: a damaged data URL ({error})")
        return None


def _captions(
    sources: list[str | bytes], options: argparse.Namespace, changes: dict[str, str], findings: Findings
) -> dict[str | bytes, str]:
    """The alternative text of each picture that can be captioned."""
    captioner = open_captioner(options)
    findings.notes += captioner.notes if isinstance(captioner, PromptedPipeline) else ()
    decoding = decoding_of(options, changes, captioner.decoding, captioner.vocabulary)
    style = partial(alt_text, max_chars=options.max_chars or MAX_CHARS)
    texts: dict[str | bytes, str] = {}

    def known() -> Iterator[Source]:
        for source in sources:
            has_words = options.context and isinstance(source, str)
            words = context_of(str(source), options.context, findings.notes) if has_words else ""
            yield WithContext(source, words) if words else source

    for source, (_, result) in zip(sources, captioner.captions(known(), decoding, options.batch_size), strict=True):
        if isinstance(result, Failure):
            (findings.unreadable if result.unreadable else findings.failed).append(result.reason)
        elif text := style(result.text):
            findings.notes += result.notes
            texts[source] = text
        else:
            name = source if isinstance(source, str) else "a data URL"
            findings.failed.append(f"{name}: its caption is empty, so it gets no alternative text")
    return texts


def _finish(page: Page, new: str, write: bool, findings: Findings) -> bool:
    """Print the difference; with `write`, change the page.  -> whether that worked."""
    name = printable(str(page.path))
    for line in unified_diff(page.text.splitlines(True), new.splitlines(True), f"a/{name}", f"b/{name}"):
        print(line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n", end="")
    if write:
        path = page.path.resolve()
        try:
            mode = path.stat().st_mode
            with atomic_write(path) as temporary:
                temporary.write_bytes(new.encode("utf-8", "surrogateescape"))
                temporary.chmod(mode & 0o7777)
        except PermissionError as error:
            findings.failed.append(f"{page.path}: it cannot be written ({error.strerror})")
            return False
    return True


def _report(findings: Findings, count: int, write: bool) -> None:
    report_unreadable(findings.unreadable)
    report_lines(findings.failed, "picture got no text", "pictures got no text")
    report_lines(findings.remote, "picture on another host is not fetched", "pictures on other hosts are not fetched")
    kept = findings.kept
    if empty := kept.get("empty", 0):
        findings.notes.append(f'images with alt="", which means decorative: {empty} (--empty fills them)')
    if decorative := kept.get("decorative", 0):
        findings.notes.append(f"images that are marked as decorative and stay so: {decorative}")
    report_notes(findings.notes)
    texts = f"{count} alternative text{'' if count == 1 else 's'}"
    if write:
        print(f"{texts} written", file=sys.stderr)
    else:
        print(f"{texts} to write{'; --write changes the pages' if count else ''}", file=sys.stderr)
