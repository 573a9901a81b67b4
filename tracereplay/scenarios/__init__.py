"""Named cases in which the strategies differ, each small enough to follow by hand (``tracereplay scenarios``)."""
