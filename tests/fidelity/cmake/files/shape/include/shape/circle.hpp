#pragma once

#include <shape/shape.hpp>

namespace shape {

class Circle : public Shape {
public:
    explicit Circle(double radius) : radius(radius) {}
    double area() const override;

private:
    double radius;
};

} // namespace shape
