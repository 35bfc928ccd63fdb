"""What people bring: files in and out, and checks of what is in them."""

from trainers.tables.checks import InputError as InputError
from trainers.tables.checks import check_rows as check_rows
from trainers.tables.door import frame_of as frame_of
from trainers.tables.files.outputs import check_output as check_output
from trainers.tables.frame import Frame as Frame
from trainers.tables.parts import num_rows_of as num_rows_of
from trainers.tables.parts import size_of as size_of
from trainers.tables.reading import frames_of as frames_of
from trainers.tables.reading import read_frame as read_frame
from trainers.tables.reading import read_table as read_table
from trainers.tables.splits import split_rows as split_rows
from trainers.tables.writing import PartWriter as PartWriter
from trainers.tables.writing import write_frame as write_frame
