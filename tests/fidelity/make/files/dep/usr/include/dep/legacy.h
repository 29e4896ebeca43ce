#ifndef DEP_LEGACY_H
#define DEP_LEGACY_H
#define LEGACY_MASK 0xff
#endif
