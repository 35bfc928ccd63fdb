"""How each kind of file is read: text, arrays of NumPy, Parquet."""
