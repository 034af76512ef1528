"""What servers say, turned into rows of evidence: verbatim, nothing is interpreted here."""
