#pragma once

#include <shape/shape.hpp>

namespace shape {

class Square : public Shape {
public:
    explicit Square(double side) : side(side) {}
    double area() const override;

private:
    double side;
};

} // namespace shape
