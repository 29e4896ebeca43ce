#ifndef APP_H
#define APP_H

struct options {
    unsigned seed;
    int quiet;
};

int options_parse(struct options *o, int argc, char **argv);
int report(const struct options *o);
unsigned next_sample(unsigned *state, unsigned limit);
const char *version(void);

#endif
