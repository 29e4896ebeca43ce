#define PATIENCE 7
