"""What people bring: files in and out, and checks of what is in them."""

from trainers.tables.checks import InputError as InputError
from trainers.tables.checks import check_rows as check_rows
from trainers.tables.reading import Table as Table
from trainers.tables.reading import read_table as read_table
from trainers.tables.splits import split_rows as split_rows
from trainers.tables.writing import write_table as write_table
