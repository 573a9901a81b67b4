"""VMware vSCSI traces, versions 1 and 2, and libCacheSim's oracleGeneral: binary records without a header."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from tracereplay.errors import ImportFormatError
from tracereplay.importers.base import Confidence, Conversion, Head, ImportOptions
from tracereplay.importers.scsi import SCSI_OPERATIONS

if TYPE_CHECKING:
    from tracereplay.importers.source import Source

RECORD_BYTES = {1: 32, 2: 40}
_CODE_AT = {1: 12, 2: 0}
"""Where a record has its command and version (u16 each); libCacheSim ``traceReader/customizedReader/vscsi.h``."""
_COMMON = {*SCSI_OPERATIONS, 0x00, 0x03, 0x12, 0x1A, 0x25, 0x41, 0x5A, 0x5E, 0x5F, 0x93, 0x9E, 0xA0}
SNIFFED = 64
ENOUGH = 4
GENERAL = struct.Struct("<IQIq")
"""u32 seconds, u64 object, u32 bytes, i64 number of the next request for the object (from 1; -1: none).

``oracleGeneralBin.h`` of libCacheSim.
"""
_NEVER = (-1, 2**63 - 1)


def _codes(data: bytes, version: int) -> Iterator[tuple[int, int]]:
    step, at = RECORD_BYTES[version], _CODE_AT[version]
    for start in range(0, min(len(data) // step, SNIFFED) * step, step):
        yield struct.unpack_from("<HH", data, start + at)


def vscsi_version(data: bytes) -> int | None:
    """The version that all of the first records have, with known SCSI commands; None: it is no vSCSI trace."""
    for version in (2, 1):
        codes = list(_codes(data, version))
        if codes and all(ver >> 8 == version and command in _COMMON for command, ver in codes):
            return version
    return None


class VscsiImporter:
    """Recognises the records by their version and commands and opens them."""

    name = "vscsi"
    title = "VMware vSCSI trace, version 1 or 2"

    def sniff(self, head: Head) -> Confidence:
        """CERTAIN when several records in a row are of one version."""
        version = vscsi_version(head.data)
        if version is None:
            return Confidence.NO
        enough = len(head.data) >= ENOUGH * RECORD_BYTES[version]
        return Confidence.CERTAIN if enough else Confidence.POSSIBLE

    def open(self, source: Source, options: ImportOptions, advance: Callable[[int], None]) -> Conversion:
        """Begin to import. Raises ImportFormatError when the records are of no known version."""
        version = vscsi_version(source.head().data)
        if version is None:
            raise ImportFormatError(
                f"{source.name} does not begin with vSCSI records of version 1 or 2",
                hint="leave --from out to have the format recognised",
            )
        from tracereplay.importers.record_reader import VscsiReader
        from tracereplay.importers.request_conversion import RequestConversion

        return RequestConversion(source, options, advance, VscsiReader(version, options))


class OracleGeneralImporter:
    """Recognises the records by times that never fall and by each record's pointer to the next of its object."""

    name = "oraclegeneral"
    title = "libCacheSim's oracleGeneral"

    def sniff(self, head: Head) -> Confidence:
        """POSSIBLE when times never fall, and all pointers within the first records lead to the same object."""
        whole = len(head.data) // GENERAL.size * GENERAL.size
        records = list(GENERAL.iter_unpack(head.data[:whole]))
        if len(records) < ENOUGH or (head.whole and whole != len(head.data)):
            return Confidence.NO
        last = 0
        for number, (seconds, thing, _size, following) in enumerate(records, 1):
            if seconds < last or (following not in _NEVER and following <= number):
                return Confidence.NO
            if following not in _NEVER and following <= len(records) and records[following - 1][1] != thing:
                return Confidence.NO
            last = seconds
        return Confidence.POSSIBLE

    def open(self, source: Source, options: ImportOptions, advance: Callable[[int], None]) -> Conversion:
        """Begin to import."""
        from tracereplay.importers.record_reader import OracleGeneralReader
        from tracereplay.importers.request_conversion import RequestConversion

        return RequestConversion(source, options, advance, OracleGeneralReader(options))


IMPORTERS = (VscsiImporter(), OracleGeneralImporter())
