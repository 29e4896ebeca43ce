#ifndef OPTIONS_H
#define OPTIONS_H
int read_options(int count, const char **words);
#endif
