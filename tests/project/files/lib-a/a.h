#ifndef A_H
#define A_H

#include <dep.h>

/* Work for the compiler: MANY(f) makes 64 functions. */
#define ONE(f) int f(int x) { for (int i = 0; i < x; i++) x = x * 31 + (x >> 3) + i * ANSWER; return x; }
#define FOUR(f) ONE(f##0) ONE(f##1) ONE(f##2) ONE(f##3)
#define SIXTEEN(f) FOUR(f##0) FOUR(f##1) FOUR(f##2) FOUR(f##3)
#define MANY(f) SIXTEEN(f##0) SIXTEEN(f##1) SIXTEEN(f##2) SIXTEEN(f##3)

int a1(void);
int a2(void);
int a3(void);

#endif
