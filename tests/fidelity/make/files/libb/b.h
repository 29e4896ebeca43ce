#ifndef B_H
#define B_H
int b_combine(int x);
int b_bound(int x);
const char *b_version(void);
#endif
