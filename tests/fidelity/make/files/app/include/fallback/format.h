#define FORMAT "%s: %d\n"
