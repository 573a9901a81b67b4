"""The case study docs/case-study.md: compound pages against bulk on dm-crypt's writes."""
