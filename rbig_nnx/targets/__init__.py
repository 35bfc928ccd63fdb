"""Which flows of a model are fitted, on which rows: choices, functions of rows, ensembles."""
