# SPDX-License-Identifier: GPL-2.0-only
"""The on-host part of tracereplay: loads eBPF programs, drains their rings, writes frames.

Standard library and the distribution's ``bcc`` only, Python 3.9 and later, no NumPy. Run the directory:
``/usr/bin/python3 collectors --help``. Nothing of ``tracereplay`` is imported here, nor the other way round.
"""

VERSION = "0.1.0"
"""That of the tracereplay it belongs to."""
