"""A wheel's RECORD, which is an installed distribution's too."""

from stackpatch.installed.record import Row as Row
from stackpatch.installed.record import dump_record as dump_record
from stackpatch.installed.record import encoded as encoded
from stackpatch.installed.record import parse_record as parse_record
