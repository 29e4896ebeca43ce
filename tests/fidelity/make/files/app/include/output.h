#ifndef OUTPUT_H
#define OUTPUT_H
void output(int value);
#endif
