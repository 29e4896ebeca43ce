# The file name that is installed; the library's own name stays.
RELEASE = 1.0
