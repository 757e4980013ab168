"""Properties put into an XMP packet, and read from one; all else in it stays byte for byte.

A new rdf:Description goes to the end of the packet's RDF, so nothing of what stands there is parsed and written anew.
Source: ISO 16684-1 (XMP, part 1), sections 6 and 7: a property stands once; what describes one file has one rdf:about.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from xml.parsers import expat
from xml.sax.saxutils import escape, quoteattr

__all__ = ["Property", "XmpError", "property_of", "with_properties"]

RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
META = "adobe:ns:meta/"
_WIDE = ("utf-16-be", "utf-16-le", "utf-32-be", "utf-32-le")
_START_TAG = re.compile(rb"""<(?:"[^"]*"|'[^']*'|[^>"'])*>""")
_PADDING = re.compile(rb"\s+(?=<\?xpacket end=)")
_HEAD, _TAIL = '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>\n', '\n<?xpacket end="w"?>'


class XmpError(ValueError):
    """A packet that is no XMP."""


@dataclass(frozen=True)
class Property:
    """A simple property: its namespace with the customary prefix, its name, its text."""

    namespace: str
    prefix: str
    name: str
    text: str


def with_properties(packet: bytes | None, properties: Sequence[Property], own: str) -> bytes:
    """The packet with these properties, in UTF-8, without padding; None: a new packet.

    Properties of the same name that it has are taken out, and so is all that is in the namespace `own`.
    Raises XmpError for a packet that is no XMP.
    """
    if packet is None:
        return (_HEAD + _in_meta(_in_rdf(_description(properties, ""))) + _TAIL).encode()
    packet = _PADDING.sub(b"\n", _utf8(packet))
    scan = _Scan(packet)
    names = {(one.namespace, one.name) for one in properties}

    def goes(namespace: str, name: str) -> bool:
        return namespace == own or (namespace, name) in names

    added = _description(properties, scan.about)
    edits = [(start, end, "") for namespace, name, start, end, _ in scan.elements if goes(namespace, name)]
    edits += [(*scan.span_of_attribute(*found), "") for found in scan.attributes if goes(found[1], found[2])]
    if scan.rdf is None:
        edits.append((*scan.place_in(scan.root), _in_rdf(added)))
    else:
        edits.append((*scan.place_in(scan.rdf), added))
    result = packet
    for start, end, text in sorted(edits, reverse=True):
        result = result[:start] + text.encode() + result[end:]
    _Scan(result)  # what is written can be read
    return result


def property_of(packet: bytes, namespace: str, name: str) -> str | None:
    """The text of a simple property; None where there is none. Raises XmpError for a packet that is no XMP."""
    scan = _Scan(_utf8(packet))
    texts = [text for *found, _, _, text in scan.elements if found == [namespace, name]]
    texts += [text for _, *found, text in scan.attributes if found == [namespace, name]]
    return texts[0] if texts else None


def _description(properties: Sequence[Property], about: str) -> str:
    spaces = {one.prefix: one.namespace for one in properties} | {"rdf": RDF}
    declared = "".join(f" xmlns:{prefix}={quoteattr(uri)}" for prefix, uri in sorted(spaces.items()))
    inside = "".join(f"\n   <{p.prefix}:{p.name}>{escape(p.text)}</{p.prefix}:{p.name}>" for p in properties)
    return f" <rdf:Description rdf:about={quoteattr(about)}{declared}>{inside}\n  </rdf:Description>\n "


def _in_rdf(inside: str) -> str:
    return f' <rdf:RDF xmlns:rdf="{RDF}">\n {inside}</rdf:RDF>\n'


def _in_meta(inside: str) -> str:
    return f'<x:xmpmeta xmlns:x="{META}">\n{inside}</x:xmpmeta>'


def _utf8(packet: bytes) -> bytes:
    for encoding in _WIDE:
        if any(packet.startswith(start.encode(encoding)) for start in ("<?xpacket", "\ufeff<")):
            try:
                return packet.decode(encoding).removeprefix("\ufeff").encode()
            except UnicodeDecodeError as error:
                raise XmpError(f"no XMP: {error.reason}") from error
    return packet.strip(b"\0")


@dataclass
class _Scan:
    """Where things are in a packet of UTF-8.

    root, rdf: their (start of the start tag, start of the end tag)
    elements: (namespace, name, start, end, text) of the properties that are elements
    attributes: (start of the tag, namespace, name, text) of those that are attributes
    """

    packet: bytes
    root: tuple[int, int] = (0, 0)
    rdf: tuple[int, int] | None = None
    about: str = ""
    elements: list[tuple[str, str, int, int, str]] = field(default_factory=list)
    attributes: list[tuple[int, str, str, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._prefixes: dict[str, set[str]] = {}
        self._open: list[tuple[str, str, int]] = []
        self._text: list[str] = []
        parser = expat.ParserCreate(encoding="utf-8", namespace_separator=" ")
        parser.buffer_text = True
        parser.StartElementHandler, parser.EndElementHandler = self._start(parser), self._end(parser)
        parser.CharacterDataHandler = self._text.append
        parser.StartNamespaceDeclHandler = lambda prefix, uri: self._prefixes.setdefault(uri, set()).add(prefix or "")
        parser.StartDoctypeDeclHandler = _refuse_doctype
        try:
            parser.Parse(self.packet, True)
        except expat.ExpatError as error:
            raise XmpError(f"no XMP: {error}") from error
        root = _name(self._root_name)
        if self.rdf is None and root != (META, "xmpmeta"):
            raise XmpError(f"no XMP: its root is {root[1]}")

    def _start(self, parser: expat.XMLParserType) -> Callable[[str, dict[str, str]], None]:
        def start(tag: str, attributes: dict[str, str]) -> None:
            at = parser.CurrentByteIndex
            if not self._open:
                self._root_name = tag
            if self._open and self._open[-1][:2] == (RDF, "RDF"):
                named = {_name(key): value for key, value in attributes.items()}
                self.about = self.about or named.get((RDF, "about"), "")
                self.attributes += [(at, *key, value) for key, value in named.items() if key[0] not in ("", RDF)]
            self._open.append((*_name(tag), at))
            self._text.clear()

        return start

    def _end(self, parser: expat.XMLParserType) -> Callable[[str], None]:
        def end(_: str) -> None:
            namespace, name, start = self._open.pop()
            at = parser.CurrentByteIndex
            if not self._open:
                self.root = start, at
            if (namespace, name) == (RDF, "RDF") and self.rdf is None:
                self.rdf = start, at
            if len(self._open) >= 2 and self._open[-2][:2] == (RDF, "RDF"):
                tag = self._tag(start)
                closed = start + len(tag) if tag.endswith(b"/>") else self.packet.index(b">", at) + 1
                self.elements.append((namespace, name, start, closed, "".join(self._text)))
            self._text.clear()

        return end

    def place_in(self, element: tuple[int, int]) -> tuple[int, int]:
        """Where the end of the content of an element is. Raises XmpError for an empty tag, which has none."""
        if self._tag(element[0]).endswith(b"/>"):
            raise XmpError("no XMP: nothing is in it")
        return element[1], element[1]

    def span_of_attribute(self, tag: int, namespace: str, name: str, _: str) -> tuple[int, int]:
        end = tag + len(self._tag(tag))
        for prefix in self._prefixes[namespace]:
            written = rb"\s" + re.escape(f"{prefix}:{name}".encode()) + rb"""\s*=\s*(?:"[^"]*"|'[^']*')"""
            if found := re.compile(written).search(self.packet, tag, end):
                return found.span()
        raise XmpError(f"no XMP: {name} is not where it was read")

    def _tag(self, start: int) -> bytes:
        """The whole start tag."""
        found = _START_TAG.match(self.packet, start)
        assert found is not None  # expat has read it
        return found.group()


def _name(tag: str) -> tuple[str, str]:
    """(namespace, name) of a name as expat gives it."""
    namespace, _, name = tag.rpartition(" ")
    return namespace, name


def _refuse_doctype(*_: object) -> None:
    raise XmpError("no XMP: it has a document type, which may stand for anything")
