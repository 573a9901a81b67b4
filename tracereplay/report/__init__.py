"""Reports: plain data first (tested), rendering second."""
