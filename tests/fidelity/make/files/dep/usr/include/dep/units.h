#ifndef DEP_UNITS_H
#define DEP_UNITS_H
#define UNIT_METRES 1000
#define UNIT_FEET 305
#endif
