"""What the files on a hub mean: releases and modules; finding, fetching and publishing them."""
