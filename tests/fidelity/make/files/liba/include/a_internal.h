#ifndef A_INTERNAL_H
#define A_INTERNAL_H
#define A_STEP 2
#endif
