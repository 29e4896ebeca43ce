#ifndef ENGINE_H
#define ENGINE_H
int engine_run(int x);
#endif
