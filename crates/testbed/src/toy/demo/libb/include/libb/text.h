#ifndef LIBB_TEXT_H
#define LIBB_TEXT_H

#include "reserved.h"

int text_length(const char *text);
int text_equal(const char *a, const char *b);
unsigned text_fingerprint(const char *text);

#endif
