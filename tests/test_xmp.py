"""Properties in XMP packets: what is added can be read by others, and all else stays byte for byte."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from pipeline.images.xmp import RDF, Property, XmpError, property_of, with_properties

OWN, IPTC, DC = "urn:own#", "http://iptc.org/std/Iptc4xmpExt/2008-02-29/", "http://purl.org/dc/elements/1.1/"
ADDED = [
    Property(IPTC, "Iptc4xmpExt", "DigitalSourceType", "new & <new>"), Property(OWN, "own", "Record", '{"a": "é"}'),
]  # fmt: skip
HEAD = "<?xpacket begin='\ufeff' id='W5M0MpCehiHzreSzNTczkc9d'?><x:xmpmeta xmlns:x='adobe:ns:meta/'>"
TAIL = "</x:xmpmeta><?xpacket end='w'?>"


def packet(inside: str) -> str:
    return f"{HEAD}<r:RDF xmlns:r='{RDF}'>{inside}</r:RDF>{TAIL}"


NODE = """<r:Description r:about='uuid:7' xmlns:dc='http://purl.org/dc/elements/1.1/' dc:source='two&#10;lines, "one"'>
<!-- kept --><dc:creator><r:Seq><r:li>Äbc</r:li></r:Seq></dc:creator></r:Description>"""


def triples(data: bytes) -> set[tuple[str, str, str]]:
    """(about, property, content) of a packet, by another parser."""
    found = set()
    for node in ElementTree.fromstring(data).iter(f"{{{RDF}}}Description"):
        about = node.get(f"{{{RDF}}}about", "")
        found |= {(about, key, value) for key, value in node.attrib.items() if key != f"{{{RDF}}}about"}
        for child in node:
            inside = "".join(ElementTree.tostring(one, "unicode").strip() for one in child) or child.text or ""
            if isinstance(child.tag, str):
                found.add((about, child.tag, inside))
    return found


def added(about: str) -> set[tuple[str, str, str]]:
    return {(about, f"{{{one.namespace}}}{one.name}", one.text) for one in ADDED}


def test_a_new_packet_is_read_by_others():
    new = with_properties(None, ADDED, OWN)
    assert triples(new) == added("") and property_of(new, OWN, "Record") == '{"a": "é"}'
    assert new.decode().startswith('<?xpacket begin="\ufeff"') and property_of(new, OWN, "Other") is None


def test_what_stands_there_stays_byte_for_byte():
    before = packet(NODE)
    after = with_properties(before.encode(), ADDED, OWN).decode()
    start, end = before.split("</r:RDF>")
    assert after.startswith(start) and after.endswith("</r:RDF>" + end)
    assert triples(after.encode()) == triples(before.encode()) | added("uuid:7"), "one rdf:about for one file"
    assert with_properties(after.encode(), ADDED, OWN).decode().count("own:Record>") == 2, "once, however often"
    assert triples(with_properties(after.encode(), ADDED, OWN)) == triples(after.encode())


@pytest.mark.parametrize("old", [
    f"<r:Description xmlns:q='{IPTC}' q:DigitalSourceType = 'a > b' q:Other='kept'/>",
    f"<r:Description xmlns:q='{IPTC}' q:Other='kept'><q:DigitalSourceType>x</q:DigitalSourceType></r:Description>",
    f"<r:Description xmlns:q='{IPTC}' q:Other='kept'><q:DigitalSourceType r:resource='x'/></r:Description>",
    f"<r:Description xmlns:q='{IPTC}' q:Other='kept' xmlns:o='{OWN}' o:Record='x' o:Younger='y'/>",
])  # fmt: skip
def test_a_property_stands_once(old):
    after = triples(with_properties(packet(old).encode(), ADDED, OWN))
    assert after == {("", f"{{{IPTC}}}Other", "kept")} | added("")


def test_packets_in_their_forms():
    bare = f"<RDF xmlns='{RDF}'><Description xmlns:dc='{DC}'><dc:title>a</dc:title></Description></RDF>"
    for before, more in ((f"{HEAD}{TAIL}", set()), (f"<x:xmpmeta xmlns:x='adobe:ns:meta/'> kept {TAIL[:12]}", set()),
                         (bare, {("", f"{{{DC}}}title", "a")})):  # fmt: skip
        assert triples(with_properties(before.encode(), ADDED, OWN)) == added("") | more
    padded = packet(NODE).replace("<?xpacket end", " " * 2000 + "\n<?xpacket end")
    assert len(with_properties(padded.encode(), ADDED, OWN)) < 2000, "padding is for editing in place, which is done"
    for encoding in ("utf-16-le", "utf-16-be", "utf-32-be"):
        after = with_properties(packet(NODE).encode(encoding), ADDED, OWN)
        assert triples(after) == triples(packet(NODE).encode()) | added("uuid:7")
    assert property_of(packet(NODE).encode() + b"\0\0", DC, "source") == 'two\nlines, "one"'


@pytest.mark.parametrize("broken", [
    b"", b"no", b"<a/>", b"<x:xmpmeta/>", b"<x:xmpmeta xmlns:x='adobe:ns:meta/'>", b"\xff\xfe<\0?\0",
    f"<!DOCTYPE a [<!ENTITY b 'c'>]>{packet(NODE)}".encode(), f"<r:RDF xmlns:r='{RDF}'/>".encode(),
])  # fmt: skip
def test_what_is_no_xmp_is_refused(broken):
    with pytest.raises(XmpError, match="no XMP"):
        with_properties(broken, ADDED, OWN)
