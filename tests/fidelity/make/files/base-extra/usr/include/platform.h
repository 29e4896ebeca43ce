#ifndef PLATFORM_H
#define PLATFORM_H
#define PAGE_BYTES 4096
#endif
