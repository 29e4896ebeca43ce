/* What everything agrees on. */
#ifndef DEP_CONFIG_H
#define DEP_CONFIG_H
#define DEP_SCALE 3
#define DEP_OFFSET 7
#endif
