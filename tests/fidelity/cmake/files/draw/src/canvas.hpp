#pragma once

#include <vector>

#include <shape/shape.hpp>

class Canvas {
public:
    void add(const shape::Shape &shape);
    double covered() const;

private:
    std::vector<const shape::Shape *> shapes;
};
