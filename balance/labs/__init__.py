"""The training code of chapters 7 to 9, their benchmark of icons, and the setting of the paper. Needs torch."""
