#define STRIDE 8
