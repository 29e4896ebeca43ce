#ifndef COMMON_H
#define COMMON_H
int common(int x);
#endif
