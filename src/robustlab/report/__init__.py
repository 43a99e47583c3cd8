"""Turn finished runs into tables and figures."""
