"""`dc:description` of an XMP packet (ISO 16684-1), changed at its place: all other bytes of the packet stay.

The description is an `rdf:Alt` with an item per language; the one that is read and written is `x-default`, or else
the first.
"""

from dataclasses import dataclass, field
from xml.parsers import expat
from xml.sax.saxutils import escape, quoteattr

from limner.data.metadata.blocks import MetadataError

RDF, DC = "http://www.w3.org/1999/02/22-rdf-syntax-ns#", "http://purl.org/dc/elements/1.1/"
NEW = (  # begins with a byte order mark, as the specification wants
    '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>\n<x:xmpmeta xmlns:x="adobe:ns:meta/">\n'
    f'<rdf:RDF xmlns:rdf="{RDF}">\n</rdf:RDF>\n</x:xmpmeta>\n<?xpacket end="w"?>'
).encode()


@dataclass
class Found:
    """Where things are in a packet, in bytes.

    about       the subject that its descriptions share
    rdf_end     the place of </rdf:RDF>
    content     begin and end of what is inside <dc:description>; (begin, begin) of <dc:description/>
    empty       whether it is written <dc:description/>
    items       begin, end, language and text of each item; an item written <rdf:li/> is left out
    attribute   whether the description is an attribute, dc:description="..."
    """

    about: str = ""
    rdf_end: int | None = None
    content: tuple[int, int] | None = None
    empty: bool = False
    items: list[tuple[int, int, str, str]] = field(default_factory=list)
    attribute: bool = False


def description(packet: bytes) -> str:
    """The description of a packet; "" without one.  Raises MetadataError for a damaged packet."""
    item = _item(_find(_text_of(packet)))
    return item[3] if item else ""


def with_description(packet: bytes | None, text: str) -> bytes:
    """The packet with another description; None makes a new packet.  Raises MetadataError for a damaged packet.

    >>> description(with_description(None, "a dog & a cat"))
    'a dog & a cat'
    """
    old = _text_of(NEW if packet is None else packet)
    found, new = _find(old), escape(text).encode()
    if found.attribute:
        raise MetadataError("its XMP has the description as an attribute, which is not changed")
    if item := _item(found):
        begin, end = item[:2]
    elif found.content and not found.empty:
        begin, end = found.content
        new = _alternatives(new)
    elif found.rdf_end is not None and not found.empty:
        begin = end = found.rdf_end
        head = f'<rdf:Description xmlns:rdf="{RDF}" xmlns:dc="{DC}" rdf:about={quoteattr(found.about)}><dc:description>'
        new = head.encode() + _alternatives(new) + b"</dc:description></rdf:Description>\n"
    else:
        raise MetadataError("its XMP is written in a form that is not changed")
    return old[:begin] + new + old[end:]


def _alternatives(escaped: bytes) -> bytes:
    return f'<rdf:Alt xmlns:rdf="{RDF}"><rdf:li xml:lang="x-default">'.encode() + escaped + b"</rdf:li></rdf:Alt>"


def _item(found: Found) -> tuple[int, int, str, str] | None:
    return next((item for item in found.items if item[2] == "x-default"), next(iter(found.items), None))


def _text_of(packet: bytes) -> bytes:
    """The packet, checked to be UTF-8 without a document type, whose entities could hide or multiply text."""
    packet = packet.rstrip(b"\0")
    try:
        packet.decode("utf-8")
    except UnicodeDecodeError as error:
        raise MetadataError("its XMP is not UTF-8") from error
    if b"<!DOCTYPE" in packet or b"<!ENTITY" in packet:
        raise MetadataError("its XMP has a document type, which XMP never has")
    return packet


def _find(packet: bytes) -> Found:
    found, path, texts = Found(), list[str](), list[str]()
    begins, languages = list[int](), list[str]()
    parser = expat.ParserCreate("UTF-8", "}")

    def after_tag() -> int:
        """The place behind the tag that begins at the parser's place; a quoted value may hold '>'."""
        place, quote = parser.CurrentByteIndex, 0
        while quote or packet[place] != ord(">"):
            char = packet[place]
            quote = (0 if char == quote else quote) if quote else (char if char in b"\"'" else 0)
            place += 1
        return place + 1

    def start(name: str, attributes: dict[str, str]) -> None:
        path.append(name)
        begins.append(after_tag())
        languages.append(attributes.get("http://www.w3.org/XML/1998/namespace}lang", "x-default"))
        texts.append("")
        if name == f"{RDF}}}Description" and path[-2:-1] == [f"{RDF}}}RDF"]:
            found.about = found.about or attributes.get(f"{RDF}}}about", "")
            found.attribute |= f"{DC}}}description" in attributes

    def end(name: str) -> None:
        place, begin = parser.CurrentByteIndex, begins.pop()
        text, language = texts.pop(), languages.pop()
        empty = packet[begin - 2 : begin] == b"/>"
        if name == f"{RDF}}}RDF" and not empty and found.rdf_end is None:
            found.rdf_end = place
        elif name == f"{DC}}}description" and found.content is None:
            found.content, found.empty = (begin, begin if empty else place), empty
        elif name == f"{RDF}}}li" and path[-3:-2] == [f"{DC}}}description"] and not empty:
            found.items.append((begin, place, language, text))
        path.pop()

    def characters(text: str) -> None:
        if texts:
            texts[-1] += text

    parser.StartElementHandler, parser.EndElementHandler = start, end
    parser.CharacterDataHandler = characters
    try:
        parser.Parse(packet, True)
    except expat.ExpatError as error:
        raise MetadataError(f"its XMP is damaged ({error})") from error
    if found.content and not found.items and not found.empty:  # <dc:description>text</dc:description>
        begin, end_place = found.content
        inside = packet[begin:end_place]
        if inside.strip() and b"<" not in inside:
            found.items.append((begin, end_place, "x-default", _unescaped(inside)))
    return found


def _unescaped(inside: bytes) -> str:
    from xml.etree import ElementTree

    return ElementTree.fromstring(b"<x>" + inside + b"</x>").text or ""
