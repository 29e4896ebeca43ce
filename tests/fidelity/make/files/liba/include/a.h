#ifndef A_H
#define A_H
int a_add(int x, int y);
int a_scale(int x);
int a_lookup(int index);
int a_length(const char *text);
#endif
