"""Tables: columns of every kind, read from text, Parquet and frames, encoded in model units, and written back by name.

`table_to_data` reads in four steps: cells as numbers, texts or dates (`text_table`, `arrow`), the kind of each column
(`kinds`), its map to model units (`column_maps`, `encoding`), and the description (`describe_table`).
"""
