#ifndef REPORT_H
#define REPORT_H
int report(int value);
#endif
