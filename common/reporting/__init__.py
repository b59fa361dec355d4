"""Everything people look at: progress, pictures, tables, pages."""
