#pragma once

namespace palette {

struct Colour {
    unsigned char red, green, blue;
};

// The colour of everything that says nothing else.
constexpr Colour standard{10, 20, 30};

} // namespace palette
