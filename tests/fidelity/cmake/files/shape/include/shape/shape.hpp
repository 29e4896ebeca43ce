#pragma once

#include <string>

#include <palette/colour.hpp>

namespace shape {

class Shape {
public:
    virtual ~Shape() = default;
    virtual double area() const = 0;
    palette::Colour colour = palette::standard;
};

std::string version();

} // namespace shape
