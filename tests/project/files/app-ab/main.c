#include <a.h>
#include <stdio.h>

MANY(main_)

int left(void);
int right(void);

int main(void) {
    printf("%d %d %d\n", ANSWER, left(), right());
    return 0;
}
