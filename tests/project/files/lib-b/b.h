#ifndef B_H
#define B_H

int b1(void);
int b2(void);
int b3(void);

#endif
